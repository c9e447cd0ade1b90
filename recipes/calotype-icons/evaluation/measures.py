"""What can be measured on a picture of one thing on a plain background, without a neural network.

Pictures are uint8 RGB [H, W, 3]; distances of colours are Euclidean in OKLab. Every measure has a ceiling below 1: what it
says of the true drawings (`evaluate.py --true`).
"""
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.feature import hog

import drawings

BORDER = 4  # pixels at 128, from which the background is read
DIFFERENT = 0.07  # from the background: a pixel of the thing
HOG_SIDE, ROOM = 64, 0.06  # the thing's square, with this share of room on each side
STYLES = ['3d', 'flat', 'cartoon']


def oklab(picture):
    return drawings.to_oklab(picture.astype(np.float32) / 255)


def named_oklab(colours):
    return list(colours), np.stack([drawings.to_oklab(np.array(rgb, np.float32) / 255) for rgb in colours.values()])


def nearest_name(lab, colours):
    names, values = named_oklab(colours)
    return names[int(np.linalg.norm(values - lab, axis=1).argmin())]


def border_pixels(lab):
    b = max(1, BORDER * lab.shape[0] // 128)
    return np.concatenate([lab[:b].reshape(-1, 3), lab[-b:].reshape(-1, 3), lab[:, :b].reshape(-1, 3), lab[:, -b:].reshape(-1, 3)])


def background_of(lab):
    """→ OKLab of the background, and whether the border has one colour."""
    border = border_pixels(lab)
    middle = np.median(border, 0)
    return middle, bool((np.linalg.norm(border - middle, axis=1) < DIFFERENT).mean() > 0.9)


def foreground(lab):
    """The pixels of the thing, bool [H, W]: unlike the background, without specks."""
    mask = np.linalg.norm(lab - background_of(lab)[0], axis=-1) > DIFFERENT
    parts, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        mask = (sizes > 0.02 * sizes.max())[parts]
    return mask


def box(mask):
    """The mask's bounding square with room: (left, top, side), of floats; the whole picture for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return 0.0, 0.0, float(min(mask.shape))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) * (1 + 2 * ROOM)
    return (left + right - side) / 2, (top + bottom - side) / 2, side


def cut(picture, square, side=HOG_SIDE):
    """The square scaled to side × side; outside of the picture there is background."""
    left, top, width = square
    pad = int(np.ceil(max(0, -left, -top, left + width - picture.shape[1], top + width - picture.shape[0])))
    if pad:
        fill = np.median(picture[[0, -1]].reshape(-1, 3), 0).astype(np.uint8)
        wide = np.empty((picture.shape[0] + 2 * pad, picture.shape[1] + 2 * pad, 3), np.uint8)
        wide[:] = fill
        wide[pad:-pad, pad:-pad] = picture
        picture, left, top = wide, left + pad, top + pad
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.BICUBIC, (left, top, left + width, top + width), reducing_gap=None))


def descriptor(picture):
    """Histograms of gradients of a 64 × 64 picture: 8 × 8 cells, 9 directions, square root and unit length, [576]."""
    return hog(oklab(picture), 9, (8, 8), (8, 8), block_norm='L1-sqrt', channel_axis=-1).astype(np.float32)


class Gallery:
    """Drawings to compare with: one row per drawing and mirror image. `entries` is a list of (name, style, rgba)."""

    def __init__(self, entries, colour=(255, 255, 255), paint=None):
        self.names, self.styles, rows = [], [], []
        for name, style, rgba in entries:
            canvas = drawings.flat_background(colour, 128)
            if paint is not None:
                rgba = np.concatenate([np.broadcast_to(np.array(paint, np.uint8), rgba.shape[:2] + (3,)), rgba[..., 3:]], -1)
            drawings.place(canvas, rgba, 100, (64, 64))
            picture = np.round(canvas * 255).astype(np.uint8)
            mask = np.linalg.norm(canvas - np.array(colour, np.float32) / 255, axis=-1) > 0.02
            square = cut(picture, box(mask))
            for view in (square, square[:, ::-1]):
                rows.append(descriptor(view))
                self.names.append(name)
                self.styles.append(style)
        self.rows = np.stack(rows)

    def ranked(self, picture, mask=None):
        """Names from the nearest to the farthest, each once, and the style of the nearest drawing."""
        mask = foreground(oklab(picture)) if mask is None else mask
        order = np.argsort(-(self.rows @ descriptor(cut(picture, box(mask)))))
        return list(dict.fromkeys(self.names[i] for i in order)), self.styles[order[0]]


def concept_gallery(sets, concepts, styles=STYLES):
    return Gallery([(c.name, s, sets.rgba(s, c.emoji, 128)) for c in concepts for s in styles if sets.has(s, c.emoji)])


def voted_colour(picture):
    """The colour word that most pixels of the thing are nearest to, or None where there is no thing."""
    lab = oklab(picture)
    inside = ndimage.binary_erosion(foreground(lab))
    if not inside.any():
        return None
    names, values = named_oklab(drawings.COLOURS)
    nearest = np.linalg.norm(lab[inside][:, None] - values, axis=-1).argmin(1)
    return names[int(np.bincount(nearest, minlength=len(names)).argmax())]


def background_name(picture):
    return nearest_name(background_of(oklab(picture))[0], drawings.BACKGROUNDS)


def detail(picture, mask):
    """Mean difference to a blurred copy (sigma 1 pixel at 128) on the thing and just around it."""
    lab = oklab(picture)
    sigma = picture.shape[0] / 128
    near = ndimage.binary_dilation(mask, iterations=max(1, round(2 * sigma)))
    difference = np.linalg.norm(lab - ndimage.gaussian_filter(lab, (sigma, sigma, 0)), axis=-1)
    return float(difference[near].mean()) if near.any() else 0.0


def sharpness(picture, candidates):
    """Detail relative to the true drawing laid where the thing is: 1 = as sharp, less = smoother, more = noisy.

    `candidates` are RGBA drawings of the thing; the one with the nearest descriptor, mirrored or not, counts.
    """
    lab = oklab(picture)
    mask = foreground(lab)
    if not mask.any():
        return None
    mine = descriptor(cut(picture, box(mask)))
    background = drawings.from_oklab(background_of(lab)[0])
    best, truth = -1, None
    for rgba in candidates:
        for mirrored in (False, True):
            other = laid_on(rgba, mirrored, background, mask)
            likeness = float(mine @ descriptor(cut(other, box(mask))))
            if likeness > best:
                best, truth = likeness, other
    reference = detail(truth, mask)
    return detail(picture, mask) / reference if reference > 0 else None


def laid_on(rgba, mirrored, background, mask):
    """The drawing scaled so that its opaque part fills the mask's bounding square."""
    if mirrored:
        rgba = rgba[:, ::-1]
    left, top, side = box(mask)
    x, y, own = box(rgba[..., 3] > 64)
    scale = side / own
    canvas = np.broadcast_to(background.astype(np.float32), mask.shape + (3,)).copy()
    centre = left + side / 2 - scale * (x + own / 2 - rgba.shape[1] / 2), top + side / 2 - scale * (y + own / 2 - rgba.shape[0] / 2)
    drawings.place(canvas, np.ascontiguousarray(rgba), max(4, round(scale * rgba.shape[1])), centre)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def variety(pictures):
    """Mean distance in OKLab between pictures of one prompt, over all pairs, the things scaled to one square."""
    aligned = [oklab(cut(p, box(foreground(oklab(p))))) for p in pictures]
    pairs = [(i, j) for i in range(len(aligned)) for j in range(i)]
    return float(np.mean([np.linalg.norm(aligned[i] - aligned[j], axis=-1).mean() for i, j in pairs]))


def count_things(picture):
    """Separate things that are at least a quarter of the largest one."""
    parts, count = ndimage.label(foreground(oklab(picture)))
    sizes = np.bincount(parts.ravel())[1:]
    return int((sizes >= 0.25 * sizes.max()).sum()) if count else 0
