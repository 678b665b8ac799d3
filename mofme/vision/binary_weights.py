"""Which weights of a restorer are worth a single bit, and how fast those learn."""

# What Adam's learning rate is multiplied by for weights that work by their signs. The paper's own factor (Glorot's, 28
# to 34 here) is for weights that begin at random: from trained ones 300 steps at 3, at 10 and at that factor came to
# gains of +2.28, +2.38 and +2.21 dB at a rate of 3e-4, and to +2.08 with 10 at a rate of 1e-3.
BINARY_RATE = 10.0

_BINARY_LEVELS = ("encoder_quarter.", "middle.", "decoder_quarter.")


def stays_real(name: str) -> bool:
    """Whether the layer of a restoration net that is called so keeps real weights.

    Binary are the 3x3 convolutions at 1/4 and 1/8 of the picture: two thirds of all weights, and those that bear it
    best. Mean gain over the weathers on validation crops, in dB, lost by the small net when one part alone is made
    binary, as it is and after 40 steps:

        3x3 at 1/4      295k weights    0.4    0.0        up and down      66k weights    0.8    0.3
        3x3 at 1/8      664k weights    0.5    0.4        context          36k weights    0.5    0.7
        fed forward 1/8 147k weights    3.0    0.3        3x3 at 1/2       74k weights    2.9    1.4
        fed forward 1/4  66k weights    5.3    0.8        stem, head       10k weights    2.5    1.1

    After 300 steps with both 3x3 binary 0.16 dB were missing to the same steps with real weights (a file of 1.03
    instead of 2.82 MB), 0.31 dB with the feed-forwards at 1/8 as well (0.75 MB), 0.42 dB with up and down, too (0.62).
    Routers read their weights themselves, so theirs are real in any case.
    """
    return not (name.startswith(_BINARY_LEVELS) and name.endswith((".conv1", ".conv2")))
