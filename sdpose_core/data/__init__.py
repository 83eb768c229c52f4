"""Training data: person crops in tar shards, COCO keypoint sets, batches and augmentation."""
