"""Camera frames in compressed video: streams in bags, files, webcams, RTSP."""
