//! Digests over the versions that a node holds: what two owners compare to find where they differ.
