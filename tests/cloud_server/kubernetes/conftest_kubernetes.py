"""Manifests that several tests apply."""

from pathlib import Path

CRD = Path(__file__).parents[3] / "deploy" / "kubernetes" / "robot-model" / "crd.yaml"
SPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: fleetlearn-robots}\n"
