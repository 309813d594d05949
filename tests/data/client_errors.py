"""Errors as the clients of object stores raise them; the clients themselves are not needed."""


class ClientError(Exception):
    """No OSError, as those of botocore are none."""


def told_by_botocore(code, status):
    error = ClientError(f"An error occurred ({code}) when calling the GetObject operation: no")
    error.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return error


def caused(error, cause):
    """As s3fs and iopath's handler of S3 raise what botocore has told."""
    error.__cause__ = cause
    return error
