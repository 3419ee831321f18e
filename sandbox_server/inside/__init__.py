"""What runs behind the front end: fork server, lockdown and runner of user programs.

Knows neither gRPC nor asyncio; the fork server process must stay single-threaded.
"""
