"""What a person sees: results on stdout, everything else on stderr."""

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def refuse(code: str, message: str) -> None:
    """One red line on stderr: the error's code, what is wrong and how to mend it."""
    err.print(f"[red]error \\[{code}][/red]", end=" ")
    err.print(message, style="red", markup=False, soft_wrap=True)
