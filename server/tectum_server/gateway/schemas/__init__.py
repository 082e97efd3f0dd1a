"""What REST callers send and get, in the contract's words; pydantic, strict, documented.

An unknown key is an error. Each file reads the SDK's results into its own answers; none of them
calls anything.
"""
