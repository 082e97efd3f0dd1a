"""What the contract's methods are asked and answer, and what several of them share."""
