"""A fleet with real training on one machine: the server's own rounds, clients in one process.

client_process.py   the process that trains, which loads the framework
tables.py           which tables are of which site
local_fleet.py      clients as the round loop sees them
rehearse.py         a server directory, its rounds, and what they leave for people
"""
