"""The steps themselves, in the order of their `down_revision`."""
