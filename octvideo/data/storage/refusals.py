"""Whether a storage refuses for good, by what its client's error says.

Clients raise errors of their own (botocore's, aiohttp's, Google's, Azure's), in part as the cause
of another one. None is imported here: names, codes and the status of HTTP tell enough.
"""

import re
from collections.abc import Mapping

_FINAL = (400, 401, 403, 404, 405, 410)  # of HTTP; others may pass
_PASSES = re.compile(
    r"throttl|time-?d? ?out|slow ?down|too ?many|rate ?limit|(limit|quota) ?exceeded"
    r"|prior ?request|busy",
    re.IGNORECASE,
)
_NAMES = {
    401: re.compile(
        r"Credentials|CredentialUnavailable|ClientAuthentication|ProfileNotFound|SSOToken"
        r"|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|invalid_grant"
        r"|RequestTimeTooSkewed"
    ),
    403: re.compile(r"AccessDenied|AllAccessDisabled|AccountProblem|Forbidden"),
    404: re.compile(r"NoSuchBucket|NoSuchKey"),
    400: re.compile(r"ParamValidation|InvalidBucketName|NoRegion|InvalidRegion|Bad Request"),
}
"""In the name of an error, in its code, or before the first colon of what it says, where no path
is."""


def final_status(error: BaseException) -> int:
    """The status of HTTP that a refusal for good has or would have, 401 for keys that are missing
    or wrong, or signed by a wrong clock; 0 for an error that may pass."""
    link: BaseException | None = error
    seen = list[BaseException]()  # `raise error from error` is its own cause
    while link is not None and link not in seen:
        if status := _status_of(link):
            return status
        seen.append(link)
        link = link.__cause__
    return 0


def _status_of(error: BaseException) -> int:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore's
        told = [
            _entry(response, "Error", "Code"),
            _entry(response, "ResponseMetadata", "HTTPStatusCode"),
        ]
    else:
        told = [str(getattr(error, name, "")) for name in ("status", "status_code", "code")]
        told += [str(getattr(response, name, "")) for name in ("status", "status_code")]
    text = str(error)
    if _PASSES.search(" ".join([*told, text])):
        return 0
    begin = text.partition(":")[0]
    named = " ".join([type(error).__name__, *told, "" if "/" in begin else begin])
    for status, names in _NAMES.items():
        if names.search(named):
            return status
    numbers = [int(word) for word in told if word.isdecimal()]
    return next((number for number in numbers if number in _FINAL), 0)


def _entry(response: Mapping[str, object], part: str, name: str) -> str:
    found = response.get(part)
    return str(found.get(name, "")) if isinstance(found, Mapping) else ""
