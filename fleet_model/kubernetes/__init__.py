"""What the operator's machine and a robot's controller both know of Kubernetes."""
