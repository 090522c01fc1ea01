"""Pictures with boxes for the detection benchmark: rendered rooms, and drawings on photographs."""
