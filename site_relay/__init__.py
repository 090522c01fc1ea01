"""A site relay: one machine in a building stands between its robots and the fleet's server.

To its robots it is a server, of cloud_server's own parts; to the fleet's server it is one robot, of
edge_agent's own parts. A building behind a thin link then costs one update a round, and one copy of
each model.

  request from the server -> the same round with the building's robots -> mean, or sums -> reply
  newest model of the server -> this machine's store, signed by its key -> the building's robots
"""
