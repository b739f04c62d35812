"""Every limit of the contract, each in this one place."""

MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""Bytes of one decoded (no longer base64) image file."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bytes of one request body.

An image of `MAX_IMAGE_BYTES` is 13,981,016 base64 characters; broken into lines of 76 with an
escaped CR LF after each it is 14,716,872. The rest is room for labels, texts and a baseline.
"""

MAX_DECODED_PIXELS = 4096 * 4096
"""Pixels of one image that are decoded, whatever its shape, unless configured otherwise."""

MAX_JPEG_PIXELS = 100_000_000
"""Pixels of a JPEG as its header states them. It is decoded at 1/2, 1/4 or 1/8 of its size."""

MAX_JPEG_COEFFICIENTS = 150_000_000
"""Coefficients of a JPEG of several scans: `MAX_JPEG_PIXELS` with colour at a quarter.

All of them are kept until the last scan, two bytes each, however small the picture is made.
"""

MAX_DECODING_BYTES = 640 * 1024 * 1024
"""Address space that decoding one image may take beyond what an idle decoder has."""

MAX_DECODING_CPU_SECONDS = 5
"""Processor time that decoding one image may take."""

MAX_DECODING_SECONDS = 30
"""How long decoding one image may last, on a machine that is busy with other things."""

MAX_JPEG_SCANS = 100
"""Scans of a progressive JPEG; encoders write about ten.

A scan may be empty: ten bytes that cost a millisecond at the largest size, so that a file of
`MAX_IMAGE_BYTES` could keep a decoder busy for a quarter of an hour.
"""

MAX_JPEG_SEGMENTS = 1000
"""Segments of a JPEG, scans aside; photos have ten to thirty, large colour profiles 255 more."""

MAX_IMAGE_BLOCKS = 10_000
"""Blocks of a GIF before its first picture, and chunks of a PNG.

Encoders write a handful, and of a PNG's pixels one for every 8 KiB or more.
"""

MAX_EXIF_BYTES = 65_536
"""Bytes of EXIF that are looked at for the orientation, which is at its beginning."""

MAX_JSON_COMMAS = 2_000_000
"""Commas of one JSON body, which bound its values: 1000 frames of 1024 numbers have 1,024,000.

A body of `MAX_BODY_BYTES` could hold eight million, a second and 400 MiB of work during which
no other request would be served.
"""

MAX_JSON_BRACKETS = 200_000
"""Opening square brackets of one JSON body, texts included: a hundred for each of `MAX_INPUTS`.

A list costs ten times what a number does: two million took more than a second.
"""

MAX_JSON_LARGE_EXPONENTS = 1000
"""Numbers of one JSON body whose exponent has three or more digits, such as 1.5e300.

No embedding has any. Some of them take the JSON decoder 20 microseconds, 500 times as long as other
numbers, so that a body of nothing else would keep everybody waiting for half a minute.
"""

IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "MPO")
"""Formats that are decoded, by Pillow's names; anything else is refused by its first bytes."""

MAX_LABELS = 100
"""Labels of one classification."""

DEFAULT_MAX_TEXTS = 100
"""Texts of one batch similarity, unless configured otherwise."""

EMBEDDING_DIMENSION = 768
"""Floats of one embedding, unless configured otherwise (CLIP ViT-L/14)."""

MAX_RELOAD_SECONDS = 120
"""How long a request waits for a model that was unloaded while idle to be loaded again."""

IMAGE_SIZE = 224
"""Pixels of each side of the square that CLIP's image tower sees."""

LARGEST_IMAGE_SIZE = 1024
"""The same of the largest model that is served; the largest that exist have 512."""

CONTEXT_LENGTH = 77
"""Tokens of a text that CLIP's text tower reads, start and end included."""

LONGEST_CONTEXT = 1024
"""The same of the longest model that is served; most that are not CLIP have 64."""

MAX_IMAGES = 64
"""Images of one request that may hold several."""

TEXTS_AT_ONCE = 64
"""Texts of a request that are tokenized and encoded together; in between, others have a turn."""

MAX_TEXT_CHARACTERS = 2475
"""Characters of a text that are looked at, white space counted once.

CLIP reads 75 tokens, and its longest has 32 bytes: with a space after each that is all it can read.
"""

MAX_MENDED_CHARACTERS = 1024
"""Characters that are looked at of a text that is not plain ASCII, or has HTML entities in it.

Mending a character takes up to a hundred times as long as reading it. Fewer than 75 tokens come of
so many only where a token has 14 characters on average; in any language it has two to six.
"""

MAX_FRAMES = 1000
"""Frames of one baseline, images and embeddings together."""

FEWEST_FRAMES_FOR_A_THRESHOLD = 5
"""Frames below which nothing is suggested: the threshold would be so high as to notice nothing.

Simulated normal scenes exceeded the threshold in 1 to 4 of 1,000 new frames, whether it came from
5 frames or from 200; but from 5 it was up to three times as high as from 50, from 10 up to one and
a half times.
"""

MAX_SEARCH_RESULTS = 10_000
"""Results of one search in a file of embeddings."""

MAX_KNOWN_SIGHTINGS = 200_000
"""Embeddings that are kept in memory while a scene is watched: 600 MB of 768 numbers each."""

MAX_CALIBRATION_PICTURES = 2000
"""Pictures of one calibration, which compares each with every other: two million pairs."""

MAX_INPUTS = 2048
"""Inputs of one request for embeddings that follows OpenAI's API, whose own limit it is."""

SMALLEST_COSINE = 0.99
"""What an encoder's embeddings must exceed against the reference's, or it is not used."""
