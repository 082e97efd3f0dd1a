"""What every measure is made of: data, probes, controls, and what "better" means."""
