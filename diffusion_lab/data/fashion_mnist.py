"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747): clothes in MNIST's format.

60,000 training and 10,000 test images of 28 x 28. The hashes are those of the packed files as
tensorflow-datasets records them; nobody states any of the expanded ones.
"""

from __future__ import annotations

from diffusion_lab.data.idx_images import IdxImages


class FashionMNIST(IdxImages):
    """Ten kinds of clothes, each alone on black; the arguments are those of `IdxImages`."""

    class_names = (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    title, directory = "Fashion-MNIST", "FashionMNIST"
    addresses = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    # 0.2860 and 0.3530 in [0, 1]
    moments = (-0.428, 0.706)
    packed = {  # noqa: RUF012 (a constant table)
        "train-images-idx3-ubyte": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    }
