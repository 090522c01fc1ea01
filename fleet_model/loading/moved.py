"""Where modules are that had another name, for settings and plug-ins that still use it.

A module that moves is added here, and stays for as long as settings files may name it.
"""

# Old package, new package, and the modules or packages that moved from the one to the other.
MOVED = (
    ("cloud_server.aggregation", "cloud_server.aggregation.rules", "fedavg median"),
    (
        "cloud_server",
        "cloud_server.cli",
        "admin_client model_commands robot_commands simulate_commands status_commands terminal",
    ),
    ("cloud_server", "cloud_server.cli.runs", "run_commands"),
    ("cloud_server", "cloud_server.cli.upkeep", "doctor doctor_commands"),
    ("cloud_server.cli", "cloud_server.cli.runs", "evaluate_command following run_commands"),
    ("cloud_server.cli", "cloud_server.cli.upkeep", "doctor doctor_commands"),
    ("cloud_server", "cloud_server.flower", "flower_fleet"),
    ("fleet_model", "cloud_server.flower", "flower_link flower_state flower_superlink"),
    ("cloud_server", "cloud_server.models", "export publish"),
    (
        "cloud_server",
        "cloud_server.monitoring",
        "fleet_status metrics robot_status status_words tensorboard totals",
    ),
    ("cloud_server", "cloud_server.models.keras", "checkpoint_import"),
    ("cloud_server.export", "cloud_server.models.keras", "litert_graphs parity_gate"),
    ("cloud_server", "cloud_server.robots", "refused_answers"),
    (
        "cloud_server",
        "cloud_server.rounds",
        "choosing fleet folding reply_spool round_journal round_state update_checks",
    ),
    ("cloud_server", "cloud_server.runs", "run_rounds run_store runs schedule"),
    (
        "cloud_server",
        "cloud_server.state",
        "certificates checkpoints clock directory history logs model_store round_record settings "
        "verdict_log",
    ),
    ("edge_agent", "edge_agent.agent", "agent participation report service status"),
    ("edge_agent", "edge_agent.cli", "enroll frame_commands"),
    (
        "edge_agent",
        "edge_agent.data",
        "ahead drawing extraction frames inspection label_formats labels manifest picture_quality",
    ),
    ("edge_agent.data.frames", "fleet_model.pictures", "image_file"),
    ("edge_agent.data.pictures", "fleet_model.pictures", "exif image_header tiff tiff_strips"),
    ("edge_agent.label_formats", "edge_agent.data.label_formats.coco", "coco"),
    ("edge_agent.label_formats", "edge_agent.data.label_formats.tfds", "tf_example tfds tfrecord"),
    ("edge_agent.label_formats", "edge_agent.data.label_formats.yolo", "yolo"),
    ("edge_agent.frames", "edge_agent.data", "storage"),
    ("edge_agent", "edge_agent.examples", "example_store held_out spool trained_moments"),
    ("edge_agent", "edge_agent.link", "fleet_client server_link"),
    ("edge_agent", "edge_agent.models", "deploy predict"),
    ("edge_agent", "edge_agent.robot", "backoff memory pause power reasons settings"),
    (
        "edge_agent",
        "edge_agent.training",
        "feature_cache local_training trainer trainers training_job training_process",
    ),
    ("edge_agent", "fleet_model", "optimizer"),
    ("edge_agent.data", "fleet_model", "tables"),
    ("edge_agent.data", "fleet_model.confusion", "lettering"),
    ("edge_agent.data", "fleet_model.files", "text"),
    ("edge_agent.data.label_formats.coco", "fleet_model.files", "json_stream"),
    ("edge_agent.examples.texts", "fleet_model.tables", "split"),
    ("edge_agent.label_formats", "fleet_model.files", "json_stream"),
    ("fleet_model", "fleet_model.keras", "stages"),
    ("fleet_model", "fleet_model.protocol", "proof report wire"),
    ("cloud_server", "fleet_model.workloads.image_classifier", "calibration"),
    ("fleet_model.workloads", "fleet_model.workloads.image_classifier", "imagenet_weights"),
)
RENAMED = {
    "cloud_server.sightings": "cloud_server.robots.last_seen",
    "cloud_server.conduct": "cloud_server.robots.offenses",
    "cloud_server.robot_query": "cloud_server.robots.query",
    "cloud_server.robots": "cloud_server.robots.register",
    "cloud_server.rounds": "cloud_server.rounds.round_loop",
    "edge_agent.confusion": "fleet_model.confusion.counts",
    "edge_agent.data.confusion": "fleet_model.confusion.counts",
    "edge_agent.label_formats.coco_index": "edge_agent.data.label_formats.coco.index",
    "edge_agent.label_formats.tfds_info": "edge_agent.data.label_formats.tfds.info",
    "edge_agent.label_formats.tfds_record": "edge_agent.data.label_formats.tfds.record",
    "edge_agent.label_formats.yolo_layout": "edge_agent.data.label_formats.yolo.layout",
    "edge_agent.frames.storage.db3_places": "edge_agent.data.storage.db3.positions",
    "fleet_model.workloads.backbones": "fleet_model.workloads.image_classifier.networks",
    "fleet_model.flower_compat": "edge_agent.link.flower_connection",
}
READERS = {  # edge_agent.frames.storage.db3_file -> edge_agent.data.storage.db3.file
    "db3": "columns file rows schema",
    "mcap": "chunk file records scan summary walk",
    "ros1": "chunk content file index records scan",
    "sqlite": "pages rows wal",
}


def new_name(module: str) -> str | None:
    """Return the name of today for a module's old one, None if it has not moved."""
    parts = module.split(".")
    for count in range(len(parts), 0, -1):  # the module, then its packages
        old, rest = ".".join(parts[:count]), "".join(f".{part}" for part in parts[count:])
        new = OLD_NAMES.get(old)
        # `cloud_server.runs` was a module and is a package now: what is in it has not moved.
        if new is not None and not (rest and new.startswith(f"{old}.")):
            return new + rest
    return None


OLD_NAMES = {
    **{f"{old}.{name}": f"{new}.{name}" for old, new, names in MOVED for name in names.split()},
    **{
        f"edge_agent.frames.storage.{kind}_{name}": f"edge_agent.data.storage.{kind}.{name}"
        for kind, names in READERS.items()
        for name in names.split()
    },
    **RENAMED,
}
