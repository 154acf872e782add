"""KMNIST (Clanuwat et al. 2018, arXiv 1812.01718): cursive Japanese letters in MNIST's format.

60,000 training and 10,000 test images of 28 x 28. The hashes are those of the packed files as
tensorflow-datasets records them; nobody states any of the expanded ones.
"""

from __future__ import annotations

from diffusion_lab.data.idx_images import IdxImages


class KMNIST(IdxImages):
    """Ten hiragana, one of each row of the syllabary; the arguments are those of `IdxImages`."""

    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    title, directory = "KMNIST", "KMNIST"
    addresses = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
    # 0.1918 and 0.3483 in [0, 1]
    moments = (-0.616, 0.697)
    packed = {  # noqa: RUF012 (a constant table)
        "train-images-idx3-ubyte": (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"
        ),
        "train-labels-idx1-ubyte": (
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"
        ),
        "t10k-images-idx3-ubyte": (
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"
        ),
        "t10k-labels-idx1-ubyte": (
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"
        ),
    }
