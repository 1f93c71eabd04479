"""``ChatledgerSaver`` on DynamoDB under simulated schedules of runs, rivals, faults and TTL.

It uses the scheduler, the network and the table of the store's simulation. A client runs graphs as
LangGraph does, one saver to a process, and a model says what LangGraph may rely on.
"""
