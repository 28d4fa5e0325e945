"""The one exception that is shown to a user without a traceback."""


class InputError(Exception):
    """Something is wrong with what the user gave; says which file, what is wrong and what to do.

    Scripts catch it, print its text and exit with status 1; a traceback would only hide the text.
    """
