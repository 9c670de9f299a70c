"""Usage telemetry: what collects the records of the hook, keeps them, and tells of them.

Standard library only, but for the Parquet store and the reports: the agent runs on consoles.
"""
