from bucket import gs

__all__ = ["gs"]
