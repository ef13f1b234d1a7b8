# The operator: one binary that cargo has built, on a base with glibc and CA certificates and no shell.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot
FROM ${BASE}
LABEL org.opencontainers.image.title="isolet-operator" org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 isolet-operator /usr/local/bin/isolet-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/isolet-operator"]
