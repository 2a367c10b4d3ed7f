"""The embedded federation behind `whimbrel up`: its folder, its processes, its links, its
faults."""
