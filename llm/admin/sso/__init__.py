"""Sign-in by an identity provider (OpenID Connect): who may in, with which groups, and for how long."""
