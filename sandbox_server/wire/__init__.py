"""Wire protocol: sandbox.proto and its committed stubs. Knows neither server nor client."""
