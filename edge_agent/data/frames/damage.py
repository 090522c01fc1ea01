"""Why whole recordings cannot be read, in the words that the server is told."""

# FrameError.reason of a whole recording: what the server is told instead of its words.
WRONG_LABEL_TOPIC, WRONG_CAMERA_TOPIC = "wrong label topic", "wrong camera topic"
SEVERAL_CAMERAS = "several camera topics"
# Why the frames of a bag are left out where other bags have the topic that the operator has named.
NO_LABEL_TOPIC = "no label topic"
