"""Tools a policy may call, and the asyncio client of the sandbox server.

Plain Python: no jax. Knows no trajectories, rewards or prompts; of the server only the wire.
"""
