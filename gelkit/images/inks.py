"""Inks: figures of journals, stored as cyan, magenta, yellow and black, become colour."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

from gelkit.images.pictures import ImageError

_BY_PROFILE, _BY_RULE = "inks-by-profile", "inks-by-rule"


def without_inks(image: Image.Image) -> tuple[Image.Image, frozenset[str]]:
    """Return a JPEG of four inks as RGB, and the flag that says how.

    With a profile of the inks in the file, by that, to sRGB: relative colorimetric with black point
    compensation. Without one, red is (1 - cyan) (1 - black), and so on.

    :raises ImageError: nothing says whether the inks are stored inverted, or the profile is
        damaged or one of something else.
    """
    if "adobe" not in image.info:  # programs disagree about these; Adobe's are inverted
        raise ImageError(
            "expected grey or RGB, or inks as Adobe stores them. Received: CMYK that does not "
            "say whether it is inverted. Export it as grey or RGB."
        )
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB"), frozenset({_BY_RULE})
    return _by_profile(image, profile), frozenset({_BY_PROFILE})


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if inks.profile.xcolor_space.strip() != "CMYK":
            raise ImageError(
                "expected a colour profile of inks. Received: CMYK with a profile of "
                f"{inks.profile.xcolor_space.strip()}. Export it as grey or RGB."
            )
        transform = ImageCms.buildTransform(
            inks,
            ImageCms.createProfile("sRGB"),
            "CMYK",
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return transform.apply(image)
    except (ImageCms.PyCMSError, OSError) as error:
        raise ImageError(
            f"expected a colour profile that can be used. Received: {error}. "
            "Export it as grey or RGB."
        ) from error
