"""The web console: pages rendered here, with what the API's own handlers answer; nothing comes from another host."""
