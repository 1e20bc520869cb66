"""A method of one's own: Noise2Inverse, whose pairs are mirrored at random.

    python examples/own_method.py

A class with a `draw` is a method, run as an object or by its name.  docs/own-method.md has one from the ground up.
"""

from dataclasses import dataclass, replace

import torch

import quietray


@dataclass(frozen=True)
class MirroredPairs(quietray.Noise2Inverse):
    """Train on slices and on their mirror images."""

    share: float = 0.5  # a setting: of the pairs, so many are mirrored

    def draw(self, samples, generator):
        """Return a pair, mirrored or not."""
        pair = super().draw(samples, generator)
        if torch.rand((), generator=generator) > self.share:
            return pair
        return replace(pair, input=pair.input.flip(-1), target=pair.target.flip(-1))


def main() -> quietray.Result:
    """Run it by its name."""
    scan = quietray.FoamScan(views=120, rows=8, cols=48, photons=200, spheres=20, largest=0.3, seed=1).acquire()
    result = quietray.denoise(
        scan,
        method="mirroredpairs",  # or MirroredPairs(share=0.3)
        training=quietray.Training(steps=20, precision="fp32"),
        symmetries=1,
    )
    print(result)
    return result


if __name__ == "__main__":
    main()
