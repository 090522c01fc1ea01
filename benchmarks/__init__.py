"""Measure this project and its peers side by side, in one run: `python -m benchmarks.NAME`.

Each prints a table and ratios (peer / ours: above 1, ours is better); --json ends with one line.

    startup.py       seconds until a command answers --help
    agent_cost.py    a robot that trains: memory, start, step, bytes; LiteRT, Keras, stock Flower
    round_time.py    seconds of one federated round
    server_memory.py memory of the server against the number of robots
    recovery.py      seconds from kill -9 of the server to the next closed round
    simulate.py      what a round costs per virtual robot, 100 to 10,000 of them
    aging.py         what age and size cost: this tree against an older commit
    extract.py       camera bags to images, pictures and training batches; rosbags, mcap
    heads.py         accuracy after five exchanges, and under attack, beside Flower's FedAvg
    non_iid.py       rules where robots see different classes, beside Flower's and central training
    active_labels.py what the order of frames on the page for labels is worth
    detection.py     boxes: the fleet, single robots, all frames in one place
    detection_cost.py  boxes on a robot: memory, step, latency; stock Flower with Keras
    text.py          texts of departments: F1, bytes, a client's round and memory, engines
    departments.py   a language model of departments that want two formats: clusters, four rules
    bytes.py         what a robot sends and receives a round, against the whole model in float32

    measure.py       medians, memory of a process tree, tables, JSON
    services.py      processes with a log each: started, watched, killed
    fleets.py        our server and agents, stock Flower's, as processes
    lean_robots.py   many robots in one process, for server_memory
    simulated_fleets.py  one arm of simulate.py
    direct_grid.py   Flower's strategies over many clients in one process
    aging_data.py    the files that aging.py measures with, written by the older commit's code
    aging_arms.py    what aging.py does in a process of its own
    bag_readers.py   one arm of extract.py
    camera_fleet.py, digit_fleet.py  the two fleets of heads.py and bytes.py
    tune_non_iid.py  chooses the settings of non_iid.py: non_iid_settings.toml
    fashion.py, small_cnn.py, fashion_fleet.py, non_iid_tables.py  the parts of non_iid.py
    rendered_scenes.py, composites.py  frames with boxes for one robot; scenes/ has their parts
    rendered_fleet.py  the frames of a whole fleet, for make demo-detection
    detection_fleet.py  the fleets and arms of detection.py
    robot_cost.py    what agent_cost.py and detection_cost.py measure alike
    detection_latency.py  one frame through a detector: our engine, Keras
    text_fleet.py, text_engines.py, text_cost.py  the parts of text.py, with PyTorch
    departments_picture.py  the picture of departments.py
    minilm.py, smollm2.py, vader.py, packages.py  models and sentences, out of packages
    debian.py        files of a Debian package, without root
    environments.py  throw-away virtual environments, one per arm
    step_stamps/     put on an agent's path, it writes down when each optimizer step ends
    camera_app/, detector_app/, text_app/  stock Flower's side of agent_cost, detection_cost, text
    constant_app/    stock Flower's side of round_time, server_memory, recovery: a Flower app
    constant_trainer.py  our side of round_time: a plug-in trainer
"""
