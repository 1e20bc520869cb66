"""Where a method works: volume, radiographs, projections, frames, series, clean, images."""
