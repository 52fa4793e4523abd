"""The driver `pyfuse3`: libfuse speaks the kernel's protocol, and pyfuse3 hands its requests on."""
