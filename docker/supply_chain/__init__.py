"""What the project is made of: packages and jars, known vulnerabilities, bill of materials. No job imports it."""
