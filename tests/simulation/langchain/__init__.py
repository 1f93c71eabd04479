"""The LangChain drop-in under simulated schedules of rivals, faults, TTL and the old class.

It uses the table and the network of the store's simulation.
"""
