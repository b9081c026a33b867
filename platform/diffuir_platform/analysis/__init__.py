"""The paper's analyses: its tables of finished sweeps, its plots and its panels, each by one command."""
