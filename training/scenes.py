"""Scenes: sprites composited over backgrounds, with degradations like those of cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

BACKGROUND_SIZE = 192
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """The difficulty of a scene; probabilities are per image, magnitudes relative to 1.

    Attributes:
        scale: smallest and largest side of the sprite as a share of the image's side.
        rotation: standard deviation of the sprite's rotation in degrees.
        plain_background: probability of one flat colour behind the sprite.
        hue_shift: probability of a large hue rotation of the sprite.
        distractor: probability of a second, smaller sprite.
        grey: probability of a greyscale image.
        night: probability of night-vision footage (dark, tinted, noisy).
        blur: probability of Gaussian blur.
        low_resolution: probability of down- and upsampling.
        noise: largest standard deviation of sensor noise.
        lighting: largest relative change of exposure and contrast.
    """

    scale: tuple[float, float] = (0.35, 0.95)
    rotation: float = 9.0
    plain_background: float = 0.2
    hue_shift: float = 0.15
    distractor: float = 0.06
    grey: float = 0.12
    night: float = 0.05
    blur: float = 0.3
    low_resolution: float = 0.25
    noise: float = 0.07
    lighting: float = 0.35


TRAINING_STYLE = SceneStyle()
CAMERA_STYLE = SceneStyle(
    scale=(0.4, 0.85),
    rotation=5.0,
    plain_background=0.1,
    hue_shift=0.0,
    distractor=0.0,
    grey=0.1,
    night=0.05,
    blur=0.3,
    low_resolution=0.25,
    noise=0.05,
    lighting=0.25,
)


def _uniform(generator: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _choose(generator: Generator, count: int, probability: float) -> Tensor:
    return torch.rand(count, generator=generator) < probability


def _mix(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Blends two [3] colours by a [h, w] mask into a [3, h, w] image."""
    return first[:, None, None] * (1 - mask) + second[:, None, None] * mask


class _Painter:
    """Paints procedural backgrounds, float32 [3, BACKGROUND_SIZE, BACKGROUND_SIZE] in [0, 1]."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        axis = torch.linspace(0, 1, BACKGROUND_SIZE)
        self._y, self._x = torch.meshgrid(axis, axis, indexing="ij")
        self._kinds = (
            self._gradient,
            self._cloudy,
            self._horizon,
            self._bricks,
            self._stripes,
            self._buildings,
            self._foliage,
            self._room,
        )

    def paint(self) -> Tensor:
        kind = self._kinds[self._integer(0, len(self._kinds))]
        image = kind()
        light = 1 + 0.35 * (self._noise(2, 1) - 0.5)
        grain = torch.randn(image.shape, generator=self._generator) * self._number(0, 0.03)
        return (image * light + grain).clamp(0, 1)

    def _number(self, low: float, high: float) -> float:
        return float(_uniform(self._generator, 1, low=low, high=high))

    def _integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=self._generator))

    def _colour(self) -> Tensor:
        """A colour [3], mostly muted, like walls, roads and lawns."""
        grey = self._number(0.08, 0.95)
        spread = self._number(0.0, 0.12) if self._number(0, 1) < 0.7 else 0.45
        return (grey + spread * torch.randn(3, generator=self._generator)).clamp(0, 1)

    def _noise(self, cells: int, octaves: int) -> Tensor:
        """Smooth noise [h, w] in [0, 1] with features of 1 / `cells` of the image."""
        total = torch.zeros(BACKGROUND_SIZE, BACKGROUND_SIZE)
        for octave in range(octaves):
            side = min(cells * 2**octave + 1, BACKGROUND_SIZE)
            coarse = torch.rand((1, 1, side, side), generator=self._generator)
            fine = functional.interpolate(
                coarse, (BACKGROUND_SIZE, BACKGROUND_SIZE), mode="bilinear"
            )
            total += fine[0, 0] / 2**octave
        return (total - total.min()) / (total.max() - total.min() + 1e-6)

    def _gradient(self) -> Tensor:
        angle = self._number(0, 2 * math.pi)
        ramp = (self._x * math.cos(angle) + self._y * math.sin(angle)).clamp(0, 1)
        return _mix(self._colour(), self._colour(), ramp * self._number(0.2, 1))

    def _cloudy(self) -> Tensor:
        noise = self._noise(self._integer(2, 12), self._integer(1, 5))
        return _mix(self._colour(), self._colour(), noise ** self._number(0.6, 2))

    def _horizon(self) -> Tensor:
        height = self._number(0.25, 0.7)
        sky = _mix(self._colour(), self._colour(), self._y)
        ground = _mix(self._colour(), self._colour(), self._noise(self._integer(4, 24), 4) * 0.6)
        edge = height + 0.08 * self._number(0, 1) * self._noise(self._integer(2, 10), 2)
        return torch.where(self._y > edge, ground, sky)

    def _bricks(self) -> Tensor:
        rows = self._integer(4, 20)
        row = (self._y * rows).floor()
        shift = self._number(0, 0.5) * (row % 2)
        column = self._x * rows * self._number(0.4, 1.1) + shift
        mortar = self._number(0.04, 0.14)
        joint = ((self._y * rows) % 1 < mortar) | (column % 1 < mortar)
        tone = torch.rand((64, 64), generator=self._generator)
        each = tone[row.long() % 64, column.floor().long() % 64]
        wall = _mix(self._colour(), self._colour(), each * self._number(0.1, 0.6))
        return torch.where(joint, self._colour()[:, None, None], wall)

    def _stripes(self) -> Tensor:
        angle = self._number(0, math.pi)
        phase = (self._x * math.cos(angle) + self._y * math.sin(angle)) * self._number(3, 22)
        sharp = self._number(1, 8)
        mask = torch.sigmoid(torch.sin(2 * math.pi * phase) * sharp)
        return _mix(self._colour(), self._colour(), mask)

    def _rectangle(self, low: float, high: float) -> Tensor:
        width, height = self._number(low, high), self._number(low, high)
        left, top = self._number(-0.1, 1), self._number(-0.1, 1)
        inside_x = (self._x > left) & (self._x < left + width)
        return inside_x & (self._y > top) & (self._y < top + height)

    def _buildings(self) -> Tensor:
        image = _mix(self._colour(), self._colour(), self._y)
        for _ in range(self._integer(3, 12)):
            colour = self._colour()[:, None, None]
            image = torch.where(self._rectangle(0.05, 0.6), colour, image)
        return image

    def _foliage(self) -> Tensor:
        image = _mix(self._colour(), self._colour(), self._noise(3, 3))
        for _ in range(self._integer(6, 24)):
            radius = self._number(0.02, 0.2)
            distance = (self._x - self._number(0, 1)) ** 2 + (self._y - self._number(0, 1)) ** 2
            mask = torch.sigmoid((radius**2 - distance) * self._number(100, 2000))
            mask = mask * self._number(0.3, 1)
            image = image * (1 - mask) + self._colour()[:, None, None] * mask
        return image

    def _room(self) -> Tensor:
        floor = self._number(0.55, 0.85)
        slope = self._number(-0.2, 0.2)
        below = self._y > floor + slope * (self._x - 0.5)
        boards = 0.5 + 0.5 * torch.sin(self._x / (self._y + 0.3) * self._number(5, 60))
        ground = _mix(self._colour(), self._colour(), boards * self._number(0, 0.5))
        image = torch.where(below, ground, _mix(self._colour(), self._colour(), self._x * 0.4))
        for _ in range(self._integer(0, 3)):
            frame = self._rectangle(0.1, 0.4) & ~below
            image = torch.where(frame, self._colour()[:, None, None], image)
        return image


def paint_backgrounds(count: int, generator: Generator) -> Tensor:
    """Paints procedural backgrounds: uint8 [count, 3, BACKGROUND_SIZE, BACKGROUND_SIZE]."""
    painter = _Painter(generator)
    return torch.stack([(painter.paint() * 255).round().to(torch.uint8) for _ in range(count)])


def cut_backgrounds(photos: list[Tensor], count: int, generator: Generator) -> Tensor:
    """Cuts random squares out of photos.

    Args:
        photos: uint8 [3, h, w] each, both sides at least 97 pixels.
        count: how many squares.
        generator: source of randomness.

    Returns:
        uint8 [count, 3, BACKGROUND_SIZE, BACKGROUND_SIZE].
    """
    cuts = []
    for number in range(count):
        photo = photos[number % len(photos)]
        height, width = photo.shape[1:]
        side = int(_uniform(generator, 1, low=96, high=min(height, width)))
        top = int(torch.randint(0, height - side + 1, (1,), generator=generator))
        left = int(torch.randint(0, width - side + 1, (1,), generator=generator))
        cut = photo[None, :, top : top + side, left : left + side].float()
        resized = functional.interpolate(cut, (BACKGROUND_SIZE, BACKGROUND_SIZE), mode="bilinear")
        cuts.append(resized[0].round().clamp(0, 255).to(torch.uint8))
    return torch.stack(cuts)


def _hue_matrices(angles: Tensor, saturations: Tensor) -> Tensor:
    """RGB matrices [n, 3, 3] that rotate the hue by `angles` [n] and scale the saturation.

    The rotation is about the grey axis in YIQ space, so brightness stays.
    """
    to_yiq = torch.tensor([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    turn = torch.zeros(len(angles), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = saturations * angles.cos()
    turn[:, 1, 2] = -saturations * angles.sin()
    turn[:, 2, 1] = saturations * angles.sin()
    turn[:, 2, 2] = saturations * angles.cos()
    matrices: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return matrices


def _recolour(images: Tensor, matrices: Tensor) -> Tensor:
    """Applies [n, 3, 3] colour matrices to [n, 3, h, w] images."""
    return torch.bmm(matrices, images.flatten(2)).view_as(images)


def _place(
    sprites: Tensor, size: int, scale: tuple[float, float], rotation: float, generator: Generator
) -> Tensor:
    """Puts sprites [n, 4, s, s] at random place, size and angle in [n, 4, size, size]."""
    count = len(sprites)
    low, high = math.log(scale[0]), math.log(scale[1])
    side = _uniform(generator, count, low=low, high=high).exp()
    stretch = _uniform(generator, count, low=-0.12, high=0.12).exp()
    angle = torch.randn(count, generator=generator) * math.radians(rotation)
    flip = torch.where(_choose(generator, count, 0.5), -1.0, 1.0)
    room = (1 - side).clamp(min=0.05)
    shift = _uniform(generator, count, 2, low=-1, high=1) * room[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = flip * angle.cos() / (side * stretch)
    theta[:, 0, 1] = flip * angle.sin() / (side * stretch)
    theta[:, 1, 0] = -angle.sin() / side * stretch
    theta[:, 1, 1] = angle.cos() / side * stretch
    theta[:, :, 2] = -(theta[:, :, :2] @ shift[:, :, None])[:, :, 0]
    grid = functional.affine_grid(theta, [count, 4, size, size], align_corners=False)
    return functional.grid_sample(sprites, grid, mode="bilinear", align_corners=False)


def _blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur of [n, 3, h, w] images, each by its own sigma [n] in pixels."""
    radius = max(1, math.ceil(2.5 * float(sigmas.max())))
    offsets = torch.arange(-radius, radius + 1)
    kernels = (-(offsets**2) / (2 * sigmas[:, None] ** 2)).exp()
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = images.flatten(0, 1)[None]
    flat = functional.pad(flat, (radius, radius, radius, radius), mode="replicate")
    flat = functional.conv2d(flat, kernels[:, None, :, None], groups=flat.shape[1])
    flat = functional.conv2d(flat, kernels[:, None, None, :], groups=flat.shape[1])
    return flat.view_as(images)


@dataclass(slots=True)
class SceneComposer:
    """Composites batches of scenes.

    Attributes:
        sprites: uint8 [n, 4, s, s], RGB premultiplied by alpha.
        monochrome: bool [n], drawings without a colour of their own, which get a random one.
        backgrounds: uint8 [m, 3, b, b].
        generator: source of all randomness.
    """

    sprites: Tensor
    monochrome: Tensor
    backgrounds: Tensor
    generator: Generator

    def compose(self, indices: Tensor, size: int, style: SceneStyle) -> Tensor:
        """Composites one scene for each sprite.

        Args:
            indices: int64 [n], rows of `sprites`; -1 leaves the scene empty.
            size: side of the scenes in pixels.
            style: how hard the scenes are.

        Returns:
            float32 [n, 3, size, size] in [0, 1].
        """
        images = self._background(len(indices), size, style)
        extra = _choose(self.generator, len(indices), style.distractor).nonzero()[:, 0]
        if len(extra):
            others = torch.randint(len(self.sprites), (len(extra),), generator=self.generator)
            images[extra] = self._over(images[extra], others, (0.15, 0.3), style)
        present = (indices >= 0).nonzero()[:, 0]
        if len(present) == len(indices):
            images = self._over(images, indices, style.scale, style)
        elif len(present):
            images[present] = self._over(images[present], indices[present], style.scale, style)
        return self._degrade(images, style)

    def _background(self, count: int, size: int, style: SceneStyle) -> Tensor:
        generator = self.generator
        chosen = torch.randint(len(self.backgrounds), (count,), generator=generator)
        images = self.backgrounds[chosen].float().div_(255)
        theta = torch.zeros(count, 2, 3)
        zoom = _uniform(generator, count, low=0.35, high=1.0)
        theta[:, 0, 0] = zoom * torch.where(_choose(generator, count, 0.5), -1.0, 1.0)
        theta[:, 1, 1] = zoom
        theta[:, :, 2] = _uniform(generator, count, 2, low=-1, high=1) * (1 - zoom[:, None])
        grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
        images = functional.grid_sample(images, grid, mode="bilinear", align_corners=False)
        plain = _choose(generator, count, style.plain_background)
        images[plain] = torch.rand((int(plain.sum()), 3, 1, 1), generator=generator)
        angles = torch.randn(count, generator=generator) * 0.4
        return _recolour(images, _hue_matrices(angles, _uniform(generator, count, high=1.3)))

    def _over(
        self, images: Tensor, indices: Tensor, scale: tuple[float, float], style: SceneStyle
    ) -> Tensor:
        generator, count = self.generator, len(indices)
        sprites = self.sprites[indices].float().div_(255)
        placed = _place(sprites, images.shape[-1], scale, style.rotation, generator)
        colour, alpha = placed[:, :3], placed[:, 3:]
        angles = torch.randn(count, generator=generator) * 0.12
        strong = _choose(generator, count, style.hue_shift)
        anywhere = _uniform(generator, count, low=-math.pi, high=math.pi)
        angles = torch.where(strong, anywhere, angles)
        saturation = _uniform(generator, count, low=0.6, high=1.3)
        gain = _uniform(generator, count, low=0.75, high=1.2)
        matrices = _hue_matrices(angles, saturation) * gain[:, None, None]
        offset = _uniform(generator, count, 1, 1, 1, low=-0.1, high=0.1)
        colour = _recolour(colour, matrices) + offset * alpha
        ink = self.monochrome[indices]
        if bool(ink.any()):
            shades = torch.rand((int(ink.sum()), 3, 1, 1), generator=generator)
            colour[ink] = shades * alpha[ink]
        return images * (1 - alpha) + torch.minimum(colour.clamp_(min=0), alpha)

    def _degrade(self, images: Tensor, style: SceneStyle) -> Tensor:
        generator, count, size = self.generator, len(images), images.shape[-1]
        for factor in (0.3, 0.45, 0.6):
            low = _choose(generator, count, style.low_resolution / 3).nonzero()[:, 0]
            if len(low):
                side = max(24, round(size * factor))
                small = functional.interpolate(images[low], (side, side), mode="area")
                images[low] = functional.interpolate(small, (size, size), mode="bilinear")
        soft = _choose(generator, count, style.blur).nonzero()[:, 0]
        if len(soft):
            sigmas = _uniform(generator, len(soft), low=0.3, high=2.2) * size / 224
            images[soft] = _blur(images[soft], sigmas)
        grey = _choose(generator, count, style.grey)
        night = _choose(generator, count, style.night)
        cast = 1 + 0.08 * torch.randn((count, 3), generator=generator)
        matrices = torch.diag_embed(cast)
        luma = torch.tensor(LUMA).expand(3, 3)
        matrices[grey] = luma
        tint = torch.where(
            _choose(generator, count, 0.6)[:, None],
            torch.tensor([0.25, 0.8, 0.3]),
            torch.tensor([0.55, 0.55, 0.6]),
        )
        matrices[night] = (tint[:, :, None] * luma)[night]
        contrast = 1 + style.lighting * _uniform(generator, count, low=-1, high=1)
        exposure = 0.5 * style.lighting * _uniform(generator, count, low=-1, high=1)
        matrices = matrices * contrast[:, None, None]
        offset = 0.5 * (1 - contrast) + exposure
        offset = torch.where(night, torch.zeros(()), offset)
        images = _recolour(images, matrices).add_(offset[:, None, None, None])
        # Half of the images stay free of noise; night footage is always noisy.
        level = (_uniform(generator, count, low=-1, high=1) * style.noise).clamp(min=0)
        level = torch.where(night, level + 0.04, level)
        noisy = (level > 0).nonzero()[:, 0]
        grain = torch.randn((len(noisy), 3, size, size), generator=generator)
        images[noisy] += grain * level[noisy][:, None, None, None]
        return images.clamp_(0, 1)


def premultiply(pixels: Tensor) -> Tensor:
    """Straight-alpha uint8 [n, s, s, 4] to alpha-premultiplied uint8 [n, 4, s, s]."""
    alpha = pixels[..., 3:].to(torch.int16)
    colour = (pixels[..., :3].to(torch.int16) * alpha + 127).div(255, rounding_mode="floor")
    return torch.cat([colour, alpha], dim=-1).to(torch.uint8).permute(0, 3, 1, 2).contiguous()
