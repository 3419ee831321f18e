"""The front end: asyncio and gRPC. Runs no user code, imports no numpy, and never forks itself."""
