"""Infrastructure of runs: settings, memory plan, slabs, output folder."""
