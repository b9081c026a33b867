"""XMP packets: kept byte for byte but for what must change, which is found by pattern and not by parsing.

A packet comes from anybody, and an XML parser would rewrite it. The patterns are linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.sax.saxutils import escape

_NAMESPACES = {
    b"hdrgm": b"http://ns.adobe.com/hdr-gain-map/1.0/",
    b"HDRGainMap": b"http://ns.apple.com/HDRGainMap/1.0/",
    b"Container": b"http://ns.google.com/photos/1.0/container/",
    b"GContainer": b"http://ns.google.com/photos/1.0/container/",
    b"GCamera": b"http://ns.google.com/photos/1.0/camera/",
    b"GDepth": b"http://ns.google.com/photos/1.0/depthmap/",
    b"GImage": b"http://ns.google.com/photos/1.0/image/",
    b"tiff": b"http://ns.adobe.com/tiff/1.0/",
    b"exif": b"http://ns.adobe.com/exif/1.0/",
}
"""Usual prefix -> namespace; a packet may use another prefix."""
_ANY = rb"[A-Za-z_][\w.-]*"
_PLACE = rb"(?:" + _ANY + rb"):(?i:GPS[\w.-]*|Latitude|Longitude|AbsoluteAltitude|RelativeAltitude|lat|long)"
_SECOND_PICTURES = (
    (b"hdrgm", _ANY),
    (b"HDRGainMap", _ANY),
    (b"Container", b"Directory"),
    (b"GContainer", b"Directory"),
    (b"GCamera", rb"(?:MotionPhoto|MicroVideo)[\w.-]*"),
    (b"GDepth", _ANY),
    (b"GImage", _ANY),
)
"""Names of what tells about further pictures in the file; these are not kept, so the claim would be false."""
_GAIN_MAP = re.compile(
    rb"http://ns\.(?:adobe\.com/hdr-gain-map|apple\.com/HDRGainMap)/1\.0/|[\"'>]GainMap[\"'<]"
)
_FILM = re.compile(rb"""(?:MotionPhoto|MicroVideo)\s*(?:=\s*["']|>)\s*1|[\"'>]MotionPhoto[\"'<]""")
_DEPTH = re.compile(rb"http://ns\.google\.com/photos/1\.0/depthmap/|[\"'>]Depth(?:Map)?[\"'<]")
_EXTENDED = rb"xmpNote:HasExtendedXMP"


class UnreadableXmpError(ValueError):
    """A packet in which nothing can be found for certain."""


def edited(packet: bytes, size: tuple[int, int], *, with_gps: bool) -> bytes:
    """`packet` for an upright photo of (width, height): orientation 1, that size, no claim of further pictures.

    Without `with_gps` whatever is named GPS, latitude or longitude is removed, in any namespace. Raises
    UnreadableXmpError.
    """
    if b"\0" in packet.rstrip(b"\0") or (b"<" not in packet):
        raise UnreadableXmpError("it is not in UTF-8")
    names = [_name(packet, prefix, local) for prefix, local in _SECOND_PICTURES]
    packet = _without(packet, b"|".join(names))
    if not with_gps:
        packet = _without(packet, _PLACE)
    numbers: tuple[tuple[bytes, bytes, int], ...] = (
        (b"tiff", b"Orientation", 1),
        (b"tiff", b"ImageWidth", size[0]),
        (b"tiff", b"ImageLength", size[1]),
        (b"exif", b"PixelXDimension", size[0]),
        (b"exif", b"PixelYDimension", size[1]),
    )
    for prefix, local, number in numbers:
        pattern = rb"""(\b(?:%s)(?:\s*=\s*["']|>))\d+(?=["'<])""" % _name(packet, prefix, local)
        packet = re.sub(pattern, rb"\g<1>%d" % number, packet)
    return packet


def orientation(packet: bytes) -> int:
    """The orientation in a packet, 1 to 8; 1 if it tells none."""
    found = re.search(rb"""\btiff:Orientation(?:\s*=\s*["']|>)([1-8])["'<]""", packet)
    return int(found[1]) if found else 1


def without_extension(packet: bytes) -> bytes:
    """`packet` without the claim of a second part."""
    return _without(packet, _EXTENDED)


def has_extension(packet: bytes) -> bool:
    """Whether a packet says that it has a second part."""
    return _EXTENDED in packet


def tells_gain_map(packet: bytes) -> bool:
    """Whether a packet says that its file, or the picture that it describes, is a gain map (HDR)."""
    return _GAIN_MAP.search(packet) is not None


def tells_film(packet: bytes) -> bool:
    """Whether a packet says that a film follows the picture."""
    return _FILM.search(packet) is not None


def tells_depth_map(packet: bytes) -> bool:
    """Whether a packet says that a depth map is in the file."""
    return _DEPTH.search(packet) is not None


_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()
_TEXT_PROPERTIES = {
    "Title": "dc:title",
    "Author": "dc:creator",
    "Description": "dc:description",
    "Copyright": "dc:rights",
    "Comment": "exif:UserComment",
    "Software": "xmp:CreatorTool",
    "Source": "dc:source",
    "time of change": "xmp:ModifyDate",
}
"""Keyword of a PNG's text (PNG specification, 11.3.3.2) -> XMP property."""


def with_texts(packet: bytes | None, texts: Iterable[tuple[str, str]]) -> tuple[bytes | None, list[str]]:
    """`packet`, None for none, with (keyword, text) pairs added, and the keywords that have no place in it."""
    properties: dict[str, str] = {}
    left = []
    for keyword, text in texts:
        name = _TEXT_PROPERTIES.get(keyword)
        if name is None or name in properties or name.encode() in (packet or b"") or not _is_xml(text):
            left.append(keyword)
        else:
            properties[name] = text
    before, end, after = (_EMPTY if packet is None else packet).rpartition(b"</rdf:RDF>")
    if not properties or not end or b"http://www.w3.org/1999/02/22-rdf-syntax-ns#" not in before:
        return packet, left + [keyword for keyword, name in _TEXT_PROPERTIES.items() if name in properties]
    body = "".join(_property(name, escape(text)) for name, text in properties.items())
    added = (
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/">'
        f"{body}</rdf:Description>"
    )
    return before + added.encode() + end + after, left


def _property(name: str, text: str) -> str:
    if name == "dc:creator":
        text = f"<rdf:Seq><rdf:li>{text}</rdf:li></rdf:Seq>"
    elif name not in ("xmp:CreatorTool", "xmp:ModifyDate", "dc:source"):
        text = f'<rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
    return f"<{name}>{text}</{name}>"


def _is_xml(text: str) -> bool:
    """Whether XML 1.0 can hold the characters of a text (2.2)."""
    return not re.search("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)


def _name(packet: bytes, prefix: bytes, local: bytes) -> bytes:
    """A pattern of a qualified name, with the prefixes that the packet declares for the usual one's namespace."""
    declared = re.findall(rb"""\bxmlns:([\w.-]{1,64})=["']%s["']""" % re.escape(_NAMESPACES[prefix]), packet)
    prefixes = b"|".join(map(re.escape, {prefix, *declared[:8]}))
    return rb"(?:%s):%s" % (prefixes, local)


def _without(packet: bytes, names: bytes) -> bytes:
    """`packet` without the attributes and elements whose qualified name matches the pattern `names`."""
    packet = re.sub(rb"""\s(?:%s)\s*=\s*(?:"[^"]*"|'[^']*')""" % names, b"", packet)
    start_of_tag = re.compile(rb"<(%s)(?=[\s/>])" % names)
    rest_of_tag = re.compile(rb"""(?:[^<>"']|"[^"]*"|'[^']*')*+>""")
    parts, at = [], 0
    while found := start_of_tag.search(packet, at):
        tag = rest_of_tag.match(packet, found.end())
        if tag is None:
            raise UnreadableXmpError("a tag has no end")
        end = tag.end()
        if packet[end - 2 : end] != b"/>":
            closing = packet.find(b"</" + found[1], end)
            end = packet.find(b">", closing) + 1
            if closing < 0 or not end:
                raise UnreadableXmpError("an element has no end")
        parts.append(packet[at : found.start()])
        at = end
    return b"".join((*parts, packet[at:])) if parts else packet
