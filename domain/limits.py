"""Every limit of the contract, each in this one place."""

MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""Bytes of one decoded (no longer base64) image file."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Bytes of one request body.

An image of `MAX_IMAGE_BYTES` is 13,981,016 base64 characters; in lines of 76 with an escaped CR LF
after each it is 14,716,872. The rest is room for labels, texts and a baseline.
"""

MAX_DECODED_PIXELS = 4096 * 4096
"""Decoded pixels of one image, whatever its shape, unless configured otherwise."""

MAX_JPEG_PIXELS = 100_000_000
"""Pixels of a JPEG as its header states them. It is decoded at 1/2, 1/4 or 1/8 of its size."""

MAX_JPEG_COEFFICIENTS = 150_000_000
"""Coefficients of a JPEG of several scans: `MAX_JPEG_PIXELS` with colour at a quarter.

All of them are kept until the last scan, two bytes each, even if the picture is decoded small.
"""

MAX_DECODING_BYTES = 640 * 1024 * 1024
"""Address space that decoding one image may take beyond what an idle decoder has."""

MAX_DECODING_CPU_SECONDS = 5
"""Processor time that decoding one image may take."""

MAX_DECODING_SECONDS = 30
"""How long decoding one image may take in real time, on a busy machine."""

MAX_JPEG_SCANS = 100
"""Scans of a progressive JPEG; encoders write about ten.

A scan may be empty: ten bytes that take a millisecond at the largest size. So a file of
`MAX_IMAGE_BYTES` could keep a decoder busy for a quarter of an hour.
"""

MAX_JPEG_SEGMENTS = 1000
"""Segments of a JPEG, scans aside; photos have ten to thirty, large colour profiles 255 more."""

MAX_IMAGE_BLOCKS = 10_000
"""Blocks of a GIF before its first picture, and chunks of a PNG.

Encoders write a handful, and for a PNG's pixels one chunk for every 8 KiB or more.
"""

MAX_EXIF_BYTES = 65_536
"""Bytes of EXIF that are searched for the orientation, which is near the beginning."""

MAX_JSON_COMMAS = 2_000_000
"""Commas in one JSON body, which limit its values: 1000 frames of 1024 numbers have 1,024,000.

A body of `MAX_BODY_BYTES` could hold eight million. They take a second and 400 MiB, and no other
request is served meanwhile.
"""

MAX_JSON_BRACKETS = 200_000
"""Opening square brackets in one JSON body, texts included: a hundred for each of `MAX_INPUTS`.

A list takes ten times as long as a number: two million took more than a second.
"""

MAX_JSON_LARGE_EXPONENTS = 1000
"""Numbers in one JSON body whose exponent has three or more digits, such as 1.5e300.

No embedding has any. Some of them take the JSON decoder 20 microseconds, 500 times as long as other
numbers. A body full of them would block all requests for half a minute.
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
"""Pixels on each side of the square that CLIP's image tower takes."""

LARGEST_IMAGE_SIZE = 1024
"""The same for the largest model that is served; the largest existing ones have 512."""

CONTEXT_LENGTH = 77
"""Tokens that CLIP's text tower reads of a text, start and end included."""

LONGEST_CONTEXT = 1024
"""The same for the model with the longest texts; most models other than CLIP have 64."""

MAX_IMAGES = 64
"""Images in one request, if it may hold several."""

TEXTS_AT_ONCE = 64
"""Texts of a request that are tokenized and encoded together; then other requests take a turn."""

MAX_TEXT_CHARACTERS = 2475
"""Characters of a text that are read, white space counted once.

CLIP reads 75 tokens, and its longest has 32 bytes. With a space after each, it cannot read more
than this.
"""

MAX_MENDED_CHARACTERS = 1024
"""Characters that are read of a text that is not plain ASCII or has HTML entities.

Repairing a character takes up to a hundred times as long as reading it. This many characters give
fewer than 75 tokens only if a token has 14 characters on average; in any language it has two to
six.
"""

MAX_FRAMES = 1000
"""Frames of one baseline, images and embeddings together."""

FEWEST_FRAMES_FOR_A_THRESHOLD = 5
"""With fewer frames no threshold is suggested: it would be so high that nothing is noticed.

Simulated normal scenes exceeded the threshold in 1 to 4 of 1,000 new frames, whether it came from
5 frames or from 200; but from 5 it was up to three times as high as from 50, from 10 up to one and
a half times.
"""

MAX_SEARCH_RESULTS = 10_000
"""Results of one search in a file of embeddings."""

MAX_KNOWN_SIGHTINGS = 200_000
"""Embeddings that are kept in memory while a scene is watched: 600 MB of 768 numbers each."""

MAX_CALIBRATION_PICTURES = 2000
"""Pictures in one calibration, which compares each with every other: two million pairs."""

MAX_INPUTS = 2048
"""Inputs in one request to OpenAI's embeddings API; this is OpenAI's own limit."""

SMALLEST_COSINE = 0.99
"""An encoder is used only if its embeddings' cosines with the reference's are above this."""
