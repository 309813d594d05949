"""What the clients of object stores say: which of it is final."""

from types import SimpleNamespace

import pytest
from client_errors import ClientError, caused, told_by_botocore

from octvideo.data.storage.refusals import final_status


def _with(kind=ClientError, text="no", **attributes):
    error = kind(text)
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def _named(name):
    return type(name, (Exception,), {})("no")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (told_by_botocore("NoSuchBucket", 404), 404),
        (told_by_botocore("404", 404), 404),
        (told_by_botocore("AccessDenied", 403), 403),
        (told_by_botocore("400", 400), 400),
        (told_by_botocore("InvalidAccessKeyId", 403), 401),
        (told_by_botocore("SignatureDoesNotMatch", 403), 401),
        (told_by_botocore("ExpiredToken", 400), 401),
        (told_by_botocore("RequestTimeTooSkewed", 403), 401),
        (caused(OSError(5, "unknown code"), told_by_botocore("AccountProblem", 403)), 403),
        (_named("NoCredentialsError"), 401),
        (_named("PartialCredentialsError"), 401),
        (_named("DefaultCredentialsError"), 401),
        (_named("ProfileNotFound"), 401),
        (_named("ParamValidationError"), 400),
        (_with(status=404), 404),  # aiohttp's
        (_with(code=401), 401),  # gcsfs's
        (_with(code="403"), 403),
        (_with(status_code=403), 403),  # Azure's
        (_with(response=SimpleNamespace(status_code=403)), 403),  # of requests
        (_with(OSError, "Forbidden: bucket/file\nno access"), 403),  # gcsfs's
        (_with(ValueError, "Bad Request: bucket\nInvalid bucket name"), 400),
    ],
)
def test_a_refusal_is_final(error, status):
    assert final_status(error) == status


@pytest.mark.parametrize(
    "error",
    [
        told_by_botocore("SlowDown", 503),
        told_by_botocore("InternalError", 500),
        told_by_botocore("RequestTimeout", 400),
        told_by_botocore("ThrottlingException", 400),
        _named("EndpointConnectionError"),
        _named("CredentialRetrievalError"),  # of a service of the machine
        _with(status=429),
        _with(code=503),
        _with(code=lambda: 404),  # a method, as of gRPC
        _with(status_code=None),
        _with(OSError, "Forbidden: bucket/file\nUser Rate Limit Exceeded"),
        _with(OSError, "Forbidden: bucket/file\nQuota exceeded"),
        _with(OSError, "Forbidden Planet/Credentials.mp4 broke off"),
        _with(response=None),
        _with(response={"Error": None}),
        OSError(5, "input/output error"),
        TimeoutError(),
    ],
)
def test_what_may_pass_is_not_final(error):
    assert final_status(error) == 0


def test_an_error_that_is_its_own_cause_may_pass():
    error = OSError(5, "input/output error")

    assert final_status(caused(error, error)) == 0
