"""The program ``clip-server``. Each of its commands is a module in `commands`."""

import io
import sys

import click

from entrypoints.commands.bundle import bundle
from entrypoints.commands.calibrate import calibrate
from entrypoints.commands.classify import classify
from entrypoints.commands.doctor import doctor
from entrypoints.commands.download import download
from entrypoints.commands.embed import embed
from entrypoints.commands.embed_on_ray import embed_on_ray
from entrypoints.commands.export import export
from entrypoints.commands.models import models
from entrypoints.commands.pipeline import pipeline
from entrypoints.commands.search import search
from entrypoints.commands.serve import serve
from entrypoints.commands.tensorrt import tensorrt
from entrypoints.commands.validate import validate
from entrypoints.commands.verify import verify
from entrypoints.commands.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="clip-embedding-server")
def main() -> None:
    """CLIP embeddings over HTTP, and on the command line.

    Every command reads the same environment variables; CLIP_MODEL_PATH names the checkpoint. All
    of them are listed by: clip-server serve --help

    \u0008
    Examples:
      clip-server doctor
      clip-server serve --model builtin:demo
      clip-server serve --model openai/clip-vit-large-patch14
      clip-server classify photo.jpg 'a cat' 'a delivery truck'
      clip-server embed photos/ --output photos.npz
      clip-server search photos.npz 'a red car at night'
      clip-server watch rtsp://camera/stream --webhook http://localhost:8123/api/webhook/clip
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Do not end with a traceback because the terminal cannot show a name.
        sys.stdout.reconfigure(errors="backslashreplace")


for command in (
    serve, embed, search, watch, calibrate, classify, doctor, models, verify,
    download, bundle, export, validate, tensorrt, pipeline, embed_on_ray,
):  # fmt: skip
    main.add_command(command)


if __name__ == "__main__":
    main()
