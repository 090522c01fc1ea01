"""The controller of RobotModels: an agent follows what its cluster says, which knows the rest."""
