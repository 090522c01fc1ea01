"""`cloud-server mcp`: assistants ask the fleet by the Model Context Protocol (MCP)."""
