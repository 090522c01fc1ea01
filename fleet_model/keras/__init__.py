"""What the server's Keras backend and a robot's Keras trainer share; both import Keras late."""
