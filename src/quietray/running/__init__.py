"""What every run has: settings, plan, slabs, output folder."""
