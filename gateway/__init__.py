"""The central gateway: CoAP towards the trucks, HTTP towards people, and the commands of both."""
