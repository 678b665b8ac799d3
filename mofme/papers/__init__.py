"""One folder a paper: its claim and our readings in `__init__`, its method, experiment, tab and command beside."""
